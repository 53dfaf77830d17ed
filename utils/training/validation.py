"""The validation of a run: the images whole, or by windows as predict_large.py does."""

import math
from typing import TYPE_CHECKING

from nets.errors import UserError
from utils.devices import unwrap
from utils.distributed import count
from utils.evaluation.evaluate import evaluate_network
from utils.evaluation.metrics import ConfusionMatrix, Metrics
from utils.inference.classify import Classify
from utils.inference.whole import predictor
from utils.training.distributed import average_buffers, merged

if TYPE_CHECKING:
    from utils.training.session import Session


def validate(session: "Session") -> tuple[ConfusionMatrix, dict[str, float], list[Metrics]]:
    """Return the confusion matrix of the validation split, its losses, and the scores of each image.

    By windows there is no loss: it is a function of the network's outputs for a whole image, and is NaN. Of
    several processes each returns the scores of its own share of the images.
    """
    average_buffers(session.validated)
    network = session.validated
    classify = window_classifier(session)
    confusion, losses, scores = evaluate_network(
        network,
        session.val_loader,
        session.device,
        None if classify else session.criterion,
        session.val_progress,
        classify=classify,
        each=session.watch,
    )
    return *merged(confusion, losses or {"total": math.nan, "main": math.nan}), scores


def window_classifier(session: "Session") -> Classify | None:
    """Return what predicts by windows of --VAL_WINDOW pixels; None where the images are predicted whole."""
    options, network = session.options, session.validated
    if options.VAL_WINDOW is None:
        return None
    predict = predictor(network, session.device)
    share = max(1, options.BATCH_SIZE // count())
    classes, task = unwrap(network).num_classes, unwrap(network).task
    return Classify(predict, classes, window=options.VAL_WINDOW, batch_size=share, task=task)


def check_windows(window: int | None, parallel: str) -> None:
    """Refuse windows where all processes have to call the network equally often.

    Raises:
        UserError: they have to.
    """
    if window is not None and parallel == "fsdp" and count() > 1:
        raise UserError("--VAL_WINDOW is given with --PARALLEL fsdp; use ddp, or validate whole images")
