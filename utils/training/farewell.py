"""What a run says when it has ended: where the results are, and what to do with them."""

from utils.training.session import Session


def farewell(session: Session) -> list[str]:
    """Return lines that say where the results are and what to do with them."""
    best = session.folder / "best.pth"
    lines = [
        "",
        *early(session),
        f"best mIoU {session.best:.4f}",
        f"log         {session.log.path}",
        f"curves      {session.log.curves}",
        f"report      {session.folder / 'report.html'}",
        f"checkpoint  {best}",
        f"evaluate:   python evaluate.py --WEIGHTS {best} --DATASET_PATH {session.options.DATASET_PATH}",
        f"predict:    python predict_small.py --WEIGHTS {best} --INPUT your_images/"
        + (" --EXTRA_IMAGES their_folder/" if session.options.EXTRA_IMAGES else ""),
    ]
    if not session.options.MAX_ITERS and session.options.EPOCHS < 20:
        lines.append(
            f"hint: {session.options.EPOCHS} epoch(s) show that it works; real runs take 100 or more"
        )
    return lines


def early(session: Session) -> list[str]:
    """Return a line that says that the run has stopped early, if it has."""
    if not session.stopped_early or session.validated_at >= session.total:
        return []
    validations, column = session.options.PATIENCE
    return [
        f"stopped at {session.unit} {session.mark}: {column} was not better in {validations} validation(s)"
    ]
