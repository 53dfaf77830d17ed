"""`--RECIPE paper` against the published numbers, by what optimiser, scheduler and network really get."""

import re

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from tests.paper_recipes import TABLE, TOTAL, Run

# Rate of each part relative to `lr` under layer-wise decay: 0.9 per stage, counted below 6 or 12 groups; the
# halvings between the stages belong to the stem, norms on the maps to the head.
STAGES = {
    r"backbone\.(norms|levels)\.": 0,
    r"backbone\.body\.stem_": 1,
    r"backbone\.body\.stages_\d\.downsample\.": 1,
    r"backbone\.body\.stages_0\.blocks": 2,
    r"backbone\.body\.stages_1\.blocks": 3,
    r"backbone\.body\.stages_2\.blocks": 4,
    r"backbone\.body\.stages_3\.blocks": 5,
}
GROUPS = {"convnext_t": 6, "convnext_s": 12, "convnext_xl": 12}
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@pytest.fixture(params=TABLE, scope="module")
def row(request):
    return Run(request.param, "--BATCH_SIZE", str(TABLE[request.param]["batch"])), TABLE[request.param]


def test_optimizer(row):
    run, wanted = row
    assert type(run.optimizer).__name__ == wanted["optimizer"]
    for group in run.optimizer.param_groups:
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        assert momentum == wanted["momentum"]
    assert run.settings.lr == pytest.approx(wanted["lr"]) and run.settings.clip_grad == wanted["clip"]


def expected_rates(run: Run, wanted: dict) -> dict[str, tuple[float, float]]:
    """Return what each parameter must get, found from the network by other means than the optimiser's."""
    groups = GROUPS.get(run.options.BACKBONE_TYPE)
    norms = {
        id(p) for module in run.network.modules() if isinstance(module, NORMS) for p in module.parameters()
    }
    kind, *parts = [part for part in wanted["no_decay"].split("|") if part] or [""]
    rates = {}
    for name, parameter in run.network.named_parameters():
        inside = name.startswith("backbone.")
        head = not name.startswith(("backbone.", *wanted.get("with_backbone", ())))
        lr = wanted["lr"] * wanted["head" if head else "backbone"]
        if groups and inside:
            place = next(place for pattern, place in STAGES.items() if re.match(pattern, name))
            lr *= 0.9 ** (groups + 2 - place) if place else 1
        one_dimensional = parameter.ndim < 2 and kind == "vectors"
        is_norm = id(parameter) in norms and kind == "norms"
        spared = one_dimensional or is_norm or any(part in name for part in parts)
        rates[name] = (lr, 0.0 if spared else wanted["decay"])
    return rates


def test_every_parameter_gets_its_rate_and_its_decay(row):
    run, wanted = row
    expected = expected_rates(run, wanted)
    frozen = {
        f"backbone.{name}.{own}"
        for name, module in run.network.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and wanted.get("frozen_norm")
        for own in ("weight", "bias")
    }
    frozen |= {name for name in expected if name.startswith("decoder.middle.")}  # EMANet's never learns
    assert set(run.rates) == set(expected) - frozen
    for name, (lr, decay) in run.rates.items():
        assert lr == pytest.approx(expected[name][0]), name
        assert decay == expected[name][1], name


def test_schedule(row):
    run, wanted = row
    warm = wanted["warmup"]
    for curve, base in zip(run.scheduler.lr_lambdas, run.scheduler.base_lrs, strict=True):
        if wanted["power"] == "step 0.1 late":  # at three quarters and nine tenths
            assert curve(warm // 2) == pytest.approx((1 + wanted["start"]) / 2)
            places = [warm, 3 * TOTAL // 4 - 1, 3 * TOTAL // 4, 9 * TOTAL // 10 - 1, 9 * TOTAL // 10]
            assert [curve(place) for place in places] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
            continue
        if str(wanted["power"]).startswith("step "):  # after each third of the run
            ratio = float(wanted["power"].removeprefix("step "))
            assert [curve(0), curve(TOTAL // 2), curve(TOTAL)] == pytest.approx([1, ratio, ratio**2])
            continue
        half, end = (
            wanted["floor"] + (base - wanted["floor"]) * left ** wanted["power"] for left in (0.5, 0.0)
        )
        start = wanted.get("start", 1e-6)
        assert base * curve(0) == pytest.approx(base * start if warm else base)
        assert base * curve(warm // 2) == pytest.approx(base * (1 + start) / 2 if warm else base, rel=1e-5)
        assert base * curve(warm) == pytest.approx(base)
        assert base * curve((TOTAL + warm) // 2) == pytest.approx(half)
        assert base * curve(TOTAL) == pytest.approx(end, abs=1e-15)


def test_network_and_loss(row):
    run, wanted = row
    outputs = run.network.train()(torch.zeros(2, 3, 64, 64, device="meta"))
    assert run.settings.loss == wanted["loss"]
    count, aux = len(outputs.get("aux", [])), run.settings.aux_weight
    assert [*aux] == wanted["aux"] if isinstance(aux, tuple) else [aux] * count == wanted["aux"]
    assert count == len(wanted["aux"]) and {*",".join(run.settings.extra_losses).split(",")} <= {"", *outputs}
    rates = [module.drop_prob for module in run.network.modules() if isinstance(module, DropPath)]
    assert max(rates, default=0.0) == pytest.approx(wanted["drop_path"])
    if wanted["dropout"] is not None:
        assert {m.p for m in run.network.modules() if isinstance(m, nn.Dropout2d)} == {wanted["dropout"]}
