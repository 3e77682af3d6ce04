"""Everything clipsyn raises on purpose.

ClipsynError                 exit code 1
├── UsageError               2   an option, name or recipe that cannot work
│   ├── UnknownName          2   a backbone, dataset, prompt set, perturbation, ensemble not known
│   ├── LeakError            2   test data given to a fit
│   └── ConflictingResults   2   the results file holds other numbers under the same names
├── InputError               3   input that is not what it should be
│   ├── DatasetError         3   folders, manifests, tars, labels, class names
│   ├── BadImages            3   too many images that cannot be decoded
│   ├── TooFewSamples        3   too few samples to fit a method
│   ├── RouterMismatch       3   a router applied to other backbones, classes, prompts or weights
│   └── CheckpointError      3   weights that do not load, do not fit, or are not finite
├── StoreError               4   the feature store
│   ├── MissingCell          4   a cell that was not extracted yet
│   ├── StaleCell            4   a cell of other weights, images, prompts or settings
│   ├── DamagedStore         4   bytes that are not those that were written
│   └── UnsupportedFormat    4   written by a newer clipsyn, or not a store at all
├── ClusterError             1   jobs that were not taken, or tasks that failed
├── PluginError              1   an entry point of another package that cannot be used
└── Interrupted            130   stopped by Ctrl-C or SIGTERM; the same command resumes

A message is one sentence (two at most): what is wrong, where, and what to run instead. It names a
Python argument, as ``backbones=…`` or ``replace=True``; the command line shows its own flag for it.
"""

from __future__ import annotations


class ClipsynError(Exception):
    """Base of all errors that a user can act on; the command line shows no traceback of them."""

    exit_code = 1


class UsageError(ClipsynError):
    """An option, argument, name or recipe that cannot work."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not known; its message has near matches."""


class LeakError(UsageError):
    """Test data was given to a fit."""


class ConflictingResults(UsageError):
    """A results file holds other numbers under the same names."""


class InputError(ClipsynError):
    """Images, labels, arrays or files that are not what they should be."""

    exit_code = 3


class DatasetError(InputError):
    """A folder, manifest, tar, label or class name that cannot be used."""


class BadImages(InputError):
    """More images than allowed that cannot be decoded."""


class CheckpointError(InputError):
    """Weights that do not load, do not fit the architecture, or are not finite."""


class TooFewSamples(InputError):
    """A method cannot be fitted on so few samples."""


class RouterMismatch(InputError):
    """A fitted head or ensemble is applied to something else; `field` names what differs."""

    def __init__(self, field: str, fitted: object, given: object) -> None:
        super().__init__(
            f"{field} differ: fitted on {_shown(fitted)}, applied to {_shown(given)}; fit again on "
            "these, or apply it to what it was fitted on"
        )
        self.field = field


class StoreError(ClipsynError):
    """A fault of the feature store."""

    exit_code = 4


class MissingCell(StoreError):
    """A cell that was not extracted yet; the message has the line that extracts it."""


class StaleCell(StoreError):
    """A cell of other weights, images, prompts or settings; `fields` names what differs."""

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class DamagedStore(StoreError):
    """Bytes of the store are not those that were written."""


class UnsupportedFormat(StoreError):
    """A store of a newer clipsyn, or a folder that is no store."""


class PluginError(ClipsynError):
    """An entry point of another package that cannot be used."""


class ClusterError(ClipsynError):
    """Jobs that were not taken, or tasks that failed; the exit code is theirs if it is one."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code or type(self).exit_code


class Interrupted(ClipsynError):
    """Stopped by Ctrl-C or SIGTERM; the same command resumes."""

    exit_code = 130


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"  # of many prompts, say
