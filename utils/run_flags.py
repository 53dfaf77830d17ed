"""The flags of a run: its name, how it goes on, when it is validated, and what it keeps; see `flags`."""

from utils.flag_types import Flag, number, patience

RUN = (
    "run",
    (
        Flag(
            "CONFIG",
            None,
            "options.json (or folder) of a run whose flags are used again; flags given here win",
            metavar="FILE",
        ),
        Flag("RUN_NAME", None, "folder below pth_files/; default: {MODEL}_{BACKBONE}, numbered where taken"),
        Flag(
            "RESUME",
            None,
            "go on with RUN_NAME, the named run or file, or the newest unfinished run",
            bare="",
            metavar="RUN",
        ),
        Flag(
            "SAVE_ITERS",
            0,
            "write last.pth every N iterations too, to go on from there after a crash; 0: after validations",
            number(int, 0),
        ),
        Flag(
            "VAL_INTERVAL",
            None,
            "epochs (or iterations with --MAX_ITERS) between validations; default: 1 epoch, and with "
            "--MAX_ITERS at most 50 validations in the run",
            number(int, 1),
        ),
        Flag(
            "VAL_WINDOW",
            None,
            "validate by windows of this side in pixels that overlap by half, as predict_large.py does; "
            "a loss is not measured then; default: images whole",
            number(int, 32),
        ),
        Flag(
            "PATIENCE",
            None,
            "stop after this many validations in which a column of the log, mIoU, was not better; "
            '"10,val_loss" names another',
            patience,
            metavar="N[,COLUMN]",
        ),
        Flag(
            "NAN_PATIENCE",
            10,
            "steps whose loss or gradient is not finite are left out; after this many in a row the run ends",
            number(int, 1),
        ),
        Flag("TENSORBOARD", False, "write the log for TensorBoard too (needs the package tensorboard)", None),
        Flag("WANDB", False, "send the log to Weights & Biases too (needs the package wandb)", None),
        Flag("MODEL_SAVE_EPOCHS", 10, "keep the weights of every N-th epoch", number(int, 1)),
        Flag("KEEP", 0, "keep only the newest N of those files; 0 keeps all", number(int, 0)),
    ),
)

COMPARISON = (
    "results",
    (Flag("OUTPUT", "comparison/", "folder of the tables, the plots and the page"),),
)
