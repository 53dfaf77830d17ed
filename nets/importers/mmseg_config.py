"""OpenMMLab's configuration text as data: it is parsed, folded into plain values and never executed."""

import ast

from nets.errors import UserError

# Keys that concern training, memory or the starting weights, not what the network computes.
_NO_FUNCTION = {
    "type", "loss_decode", "init_cfg", "sampler", "ignore_index", "norm_cfg", "num_classes", "out_channels",
    "in_channels", "frozen_stages", "norm_eval", "with_cp", "pretrained", "zero_init_residual",
    "pretrain_style", "init_std", "threshold",
}  # fmt: skip
# Names of the first releases.
_RENAMED = {"drop_out_ratio": "dropout_ratio"}
_BATCH_NORMS = {"BN", "BN2d", "SyncBN", "MMSyncBN", "BatchNorm2d"}


class _UnreadableError(ValueError):
    """An expression that is no plain value."""


def parse_config(text: str) -> dict:
    """Return the top-level assignments of a configuration as plain values.

    Literals, `dict(...)` calls and names assigned before are understood; anything else is left out.

    Raises:
        UserError: the text is no configuration.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"the checkpoint's configuration text cannot be parsed ({' '.join(str(error).split())}); "
            "name the network by --MODEL_TYPE and --MODEL_OPTIONS"
        ) from error
    values: dict = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = _fold(node.value, values)
            except _UnreadableError:
                continue
    return values


def _fold(node: ast.expr, known: dict) -> object:
    if isinstance(node, ast.Call):
        return _fold_call(node, known)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise _UnreadableError
        return {_fold(k, known): _fold(v, known) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        items = [_fold(item, known) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Name):
        if node.id not in known:
            raise _UnreadableError
        return known[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise _UnreadableError from error


def _fold_call(node: ast.Call, known: dict) -> dict:
    if not (isinstance(node.func, ast.Name) and node.func.id == "dict") or len(node.args) > 1:
        raise _UnreadableError
    folded: dict = {}
    for argument in node.args:
        folded.update(_fold(argument, known))
    for keyword in node.keywords:
        value = _fold(keyword.value, known)
        folded.update(value if keyword.arg is None else {_RENAMED.get(keyword.arg, keyword.arg): value})
    return folded


def type_of(section: dict) -> str:
    """Return the `type` of a section without a scope such as "mmseg."."""
    return str(section.get("type", "")).rsplit(".", 1)[-1]


def last_head(model: dict) -> dict:
    """Return the decode head, the last one of a cascade."""
    head = model.get("decode_head") or {}
    return head[-1] if isinstance(head, (list, tuple)) else head


def aux_sections(model: dict) -> list[dict]:
    """Return the auxiliary heads, none, one or several."""
    heads = model.get("auxiliary_head") or []
    return [heads] if isinstance(heads, dict) else list(heads)


def take(section: dict, known: dict) -> dict:
    """Return the options of a section that change what it computes, defaults filled in.

    Args:
        section: a head, backbone or neck of the configuration.
        known: the options that the caller understands, with the type's own defaults.

    Raises:
        UserError: an option that the caller does not understand and that is set to something.
    """
    unknown = [
        key
        for key, value in section.items()
        if key not in known and key not in _NO_FUNCTION and value not in (None, False, (), [], {})
    ]
    if unknown:
        raise UserError(
            f"{type_of(section)} has {unknown[0]}={section[unknown[0]]!r}, which no network here has; "
            "this checkpoint cannot be imported"
        )
    return {key: section.get(key, default) for key, default in known.items()}


def norm_eps(section: dict) -> float:
    """Return the epsilon of a section's batch norms.

    Raises:
        UserError: another normalisation, or none.
    """
    norm = section.get("norm_cfg") or {}
    if norm.get("type") not in _BATCH_NORMS:
        raise UserError(
            f"{type_of(section)} has norm_cfg={norm or None}; "
            f"only batch norm ({', '.join(sorted(_BATCH_NORMS))}) can be imported here"
        )
    return float(norm.get("eps", 1e-5))


def need_usual_norm(section: dict) -> None:
    """Check that a section's batch norms have the usual epsilon, which some of its layers have in any case.

    Raises:
        UserError: they have another.
    """
    if norm_eps({"norm_cfg": {"type": "BN"}} | section) != 1e-5:
        raise UserError(f"{type_of(section)} has norm_cfg={section['norm_cfg']}; eps=1e-5 is needed here")


def need_relu(section: dict, options: dict) -> None:
    """Check that a section's convolutions are usual ones with ReLU.

    Raises:
        UserError: they are not.
    """
    if options.get("conv_cfg") is not None or (options.get("act_cfg") or {}).get("type") != "ReLU":
        raise UserError(f"{type_of(section)} has other convolutions or activations than Conv2d and ReLU")


def layer_norm_eps(section: dict, default: float) -> float:
    """Return the epsilon of a section's layer norms.

    Raises:
        UserError: another normalisation.
    """
    norm = section.get("norm_cfg") or {"type": "LN", "eps": default}
    if norm.get("type") not in ("LN", "LN2d"):
        raise UserError(f"{type_of(section)} has norm_cfg={norm}; layer norm is needed here")
    return float(norm.get("eps", 1e-5))


def need(section: dict, options: dict, **values: object) -> None:
    """Check options of which only one value is here.

    Raises:
        UserError: an option has another value.
    """
    for key, value in values.items():
        given = options[key]
        if (tuple(given) if isinstance(given, (list, tuple)) else given) != value:
            raise UserError(f"{type_of(section)} has {key}={given!r}; {value!r} is needed here")


def look_up(section: dict, sizes: dict, described: tuple) -> str:
    """Return the name of ours for the sizes that a section describes.

    Raises:
        UserError: none has them.
    """
    if described not in sizes:
        raise UserError(
            f"{type_of(section)} has the sizes {described}; here are {', '.join(map(str, sizes))}"
        )
    return sizes[described]


def find_values(config: object, key: str) -> list:
    """Return every value that stands under `key`, at any depth, in the order of the text."""
    if isinstance(config, dict):
        own = [config[key]] if key in config else []
        return own + [value for child in config.values() for value in find_values(child, key)]
    if isinstance(config, (list, tuple)):
        return [value for child in config for value in find_values(child, key)]
    return []
