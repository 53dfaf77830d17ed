"""Opening a run: from flags to a `Session`. Mistakes show before anything is written."""

import argparse
import json
from pathlib import Path

from utils.distributed import leads
from utils.files import replacing
from utils.options import plain_options
from utils.training import announce
from utils.training.announce import say
from utils.training.assembly import assemble
from utils.training.optimizers import describe_groups
from utils.training.patience import check_patience
from utils.training.plan import Build, about_plan, make_plan
from utils.training.resume import resume
from utils.training.session import Session
from utils.training.setup import build_network
from utils.training.state import restore
from utils.training.trackers import Trackers, check_trackers


def open_session(options: argparse.Namespace, build: Build = build_network) -> Session:
    """Build a run from its flags, or from the checkpoint that it goes on from.

    Args:
        options: parsed flags.
        build: (options, bands, num_classes) -> network; benchmarks train the peers' networks this way.

    Raises:
        UserError: whatever is wrong with flags, data or files.
    """
    options, checkpoint, folder = resume(options)
    check_trackers(options)
    plan = make_plan(options, checkpoint, folder, build)
    about = [*about_plan(plan, resumed=checkpoint is not None), *plan.decisions]
    rare = plan.train.rare_classes
    drawn = None if rare is None else rare.probabilities
    say(*announce.classes_table(plan.data, plan.weights, drawn), "", *announce.decisions_table(about), "")
    session = assemble(plan)
    check_patience(options.PATIENCE, session.columns)
    groups = describe_groups(session.optimizer)
    say(*announce.groups_table(groups), "")
    if checkpoint is not None:
        restore(session, checkpoint)
    if leads():
        write_options(plan.folder, options, about, groups)
        session.trackers = Trackers(options, plan.folder, session.log.last)
    return session


def write_options(
    folder: Path, options: argparse.Namespace, about: list[tuple[str, object, str]], groups: list[dict]
) -> None:
    """Write options.json: the flags as parsed, every decision with its reason and the parameter groups."""
    folder.mkdir(parents=True, exist_ok=True)
    decisions = {name: {"value": str(value), "reason": reason} for name, value, reason in about}
    content = {"flags": plain_options(options), "decisions": decisions, "parameter_groups": groups}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with replacing(folder / "options.json") as part:
        part.write_text(text, encoding="utf-8")
