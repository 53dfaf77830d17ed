"""What --AUGMENT means: named levels of random changes as plain data, and their changes on the command line.

Nothing here imports torch: a mistyped level answers at once.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace

from nets.errors import UserError
from nets.registry import nearest

# A key that a level leaves out is off. Every key is explained in `Level` below.
LEVELS: dict[str, dict] = {
    "none": {},
    "light": {"scale": (0.5, 2.0)},
    # The ratios of the bands tell classes apart: twice as much costs three points of mIoU in a short run.
    "standard": {"scale": (0.5, 2.0), "brightness": 0.1, "contrast": 0.1},
    "strong": {
        "scale": (0.5, 2.0),
        "cat_max_ratio": 0.75,
        "rotate": 15.0,
        "brightness": 0.2,
        "contrast": 0.2,
        "gamma": 0.2,
        "color": 0.5,
        "blur": 1.0,
        "noise": 0.05,
        "band_dropout": 0.05,
        "cutout": 0.25,
        "cutmix": 0.2,
        "mosaic": 0.1,
    },
}
DEFAULT = "standard"


def _key(unit: str, high: float, *, low: float = 0.0, off: object = 0.0) -> object:
    """Return a dataclass field: its value when off, its range, and what is printed behind the value."""
    return field(default=off, metadata={"unit": unit, "low": low, "high": high})


@dataclass(frozen=True)
class Level:
    """How strongly a training sample is changed; the default of every key changes nothing.

    Pieces that are not chances themselves are applied with `chance`, each by its own draw (brightness and
    contrast by one).

    Attributes:
        name: The named level it comes from.
        given: The keys that were given beside the name.
        scale: Smallest and largest factor of size.
        rotate: Largest angle in degrees, either way.
        cat_max_ratio: Largest share of one class in a crop; another place is tried up to ten times, on the
            label alone (MMSegmentation's word and rule).
        brightness: Largest offset of a band, in standard deviations of the band.
        contrast: Largest relative change of a band's deviation from its mean in the crop.
        gamma: Largest relative change of a band's exponent.
        color: Photometric distortion of red, green and blue; 1 is as strong as in SSD.
        blur: Largest standard deviation of a Gaussian, in pixels.
        noise: Largest standard deviation of noise, in standard deviations of the band.
        band_dropout: Chance of each band to be replaced by its mean.
        cutout: Longest side of a rectangle that is replaced by the bands' means, as a share of the crop's;
            its classes stay to be found.
        cutmix: Chance that a rectangle comes from another sample, with its classes.
        mosaic: Chance that the crop is put together from four samples.
        chance: Chance of each piece that has no chance of its own.
    """

    name: str = "none"
    given: tuple[str, ...] = ()
    scale: tuple[float, float] = _key(" times", 20.0, low=0.05, off=(1.0, 1.0))
    rotate: float = _key(" degrees", 180.0)
    cat_max_ratio: float = _key(" of a crop", 1.0, low=0.1, off=1.0)
    brightness: float = _key(" std", 10.0)
    contrast: float = _key("", 1.0)
    gamma: float = _key("", 5.0)
    color: float = _key(" of SSD's", 2.0)
    blur: float = _key(" pixels", 20.0)
    noise: float = _key(" std", 10.0)
    band_dropout: float = _key(" of the bands", 0.9)
    cutout: float = _key(" of the crop's sides", 1.0)
    cutmix: float = _key(" of the crops", 1.0)
    mosaic: float = _key(" of the crops", 1.0)
    chance: float = _key(" for each piece", 1.0, off=0.5)

    def __post_init__(self) -> None:
        for key in KEYS:
            low, high = self.limits(key)
            value = getattr(self, key)
            ordered = value if isinstance(value, tuple) else (value,)
            # Written so that NaN fails too.
            if not all(low <= number <= high for number in ordered) or ordered[0] > ordered[-1]:
                order = ", the smaller number first" if len(ordered) > 1 else ""
                raise UserError(f"{key}={_text(value)} is given; from {low:g} to {high:g} is allowed{order}")
        if self.cutmix + self.mosaic > 1:
            raise UserError(
                f"cutmix={self.cutmix:g} and mosaic={self.mosaic:g} are chances of different crops; "
                "together they must be at most 1"
            )

    @staticmethod
    def limits(key: str) -> tuple[float, float]:
        """Return the smallest and the largest allowed value."""
        return KEYS[key]["low"], KEYS[key]["high"]

    @property
    def active(self) -> dict[str, object]:
        """The keys that are not at their value for "off", `chance` only where something needs it."""
        values = {key: getattr(self, key) for key in KEYS if getattr(self, key) != OFF[key]}
        needs_chance = {"rotate", "brightness", "contrast", "gamma", "blur", "noise", "cutout"}
        if needs_chance & values.keys():
            values["chance"] = self.chance
        else:
            values.pop("chance", None)
        return values

    def describe(self) -> str:
        """Return all that is done, in one line."""
        parts = [f"{key} {_text(value)}{KEYS[key]['unit']}" for key, value in self.active.items()]
        return f"{self.name}: {', '.join(parts) or 'nothing'}"


KEYS = {each.name: each.metadata for each in fields(Level) if each.metadata}
OFF = {each.name: each.default for each in fields(Level) if each.default is not MISSING}
NOTHING = Level()


def parse_level(text: str) -> Level:
    """Parse "standard", "standard,rotate=15,scale=0.8:1.2" or "rotate=15" (which is added to the default).

    Raises:
        UserError: An unknown level or key, a key twice, or a value out of its range.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    name = parts.pop(0).lower() if parts and "=" not in parts[0] else DEFAULT
    if name not in LEVELS:
        # "rotate" alone is a key whose value was forgotten, not a level.
        wanted = f"give {name}=NUMBER" if name in KEYS else f"allowed are {', '.join(LEVELS)}"
        raise UserError(f"no level is named {name!r}{nearest(name, LEVELS)}; {wanted}")
    given: dict[str, object] = {}
    for part in parts:
        key, equals, value = (word.strip() for word in part.partition("="))
        key = key.lower()
        if key in LEVELS and not equals:
            raise UserError(f"{key} is a level; give one level, before the keys")
        if key not in KEYS:
            raise UserError(f"no key is named {key!r}{nearest(key, KEYS)}; there are: {', '.join(KEYS)}")
        if key in given:
            raise UserError(f"{key} is given twice; give it once")
        given[key] = _value(key, value)
    return Level(name, tuple(given), **{**LEVELS[name], **given})


def suit_bands(level: Level, bands: int, *, rgb: bool) -> tuple[Level, list[str]]:
    """Leave out what these bands do not allow.

    Args:
        level: What is asked for.
        bands: Number of bands.
        rgb: The bands are red, green and blue.

    Returns:
        The level, and a sentence for each piece that was left out.

    Raises:
        UserError: A piece that was asked for by its own key is not possible.
    """
    reasons = {}
    if level.color and not rgb:
        reasons["color"] = "the bands are not red, green and blue (by their names)"
    if level.band_dropout and bands == 1:
        reasons["band_dropout"] = "there is one band"
    elif level.band_dropout and rgb and "band_dropout" not in level.given:
        reasons["band_dropout"] = "the bands are red, green and blue"
    for key, reason in reasons.items():
        if key in level.given:
            raise UserError(f"--AUGMENT {key} is not possible: {reason}; leave {key} out")
    notices = [f"augment: {key} is left out, because {reason}" for key, reason in reasons.items()]
    return replace(level, **{key: OFF[key] for key in reasons}), notices


def _value(key: str, text: str) -> float | tuple[float, float]:
    """Parse a number, or for a pair "0.5:2" or one number for both."""
    pair = isinstance(OFF[key], tuple)
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= (2 if pair else 1):
        form = "a number or two like 0.5:2 are" if pair else "a number is"
        raise UserError(f"{key}={text} is given; {form} wanted")
    return (numbers[0], numbers[-1]) if pair else numbers[0]


def _text(value: float | Sequence[float]) -> str:
    return ":".join(f"{number:g}" for number in (value if isinstance(value, tuple) else (value,)))
