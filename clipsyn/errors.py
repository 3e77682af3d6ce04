"""Everything clipsyn raises on purpose.

ClipsynError                 exit code 1
├── UsageError               2   an option, name or recipe that cannot work
│   ├── UnknownName          2   no such backbone, dataset, prompt set, perturbation, ensemble
│   ├── LeakError            2   test data given to something that learns
│   └── ConflictingResults   2   the results file holds other numbers under the same names
├── InputError               3   what was given to be read is not what it should be
│   ├── DatasetError         3   folders, manifests, tars, labels, class names
│   ├── BadImages            3   too many images that cannot be decoded
│   ├── TooFewSamples        3   a method that cannot be fitted on so little
│   ├── RouterMismatch       3   a router applied to other backbones, classes, prompts or weights
│   └── CheckpointError      3   weights that do not load, do not fit, or are not finite
├── StoreError               4   the feature store
│   ├── MissingCell          4   nothing extracted there yet
│   ├── StaleCell            4   something that decides the numbers has changed
│   ├── DamagedStore         4   bytes that are not the ones written
│   └── UnsupportedFormat    4   written by a newer clipsyn, or not a store at all
├── PluginError              1   what another package offers clipsyn cannot be used
└── Interrupted            130   stopped by Ctrl-C or SIGTERM; the same command resumes

A message is one sentence (two at most): what is wrong, where, and what to run instead. It names a
Python argument, as ``backbones=…`` or ``replace=True``; the command line shows its own flag for it.
"""

from __future__ import annotations


class ClipsynError(Exception):
    """Base of all errors that are the user's to act on; the CLI shows them without a traceback."""

    exit_code = 1


class UsageError(ClipsynError):
    exit_code = 2


class UnknownName(UsageError):
    """A name that nothing is registered under; carries near matches in its message."""


class LeakError(UsageError):
    pass


class ConflictingResults(UsageError):
    pass


class InputError(ClipsynError):
    exit_code = 3


class DatasetError(InputError):
    pass


class BadImages(InputError):
    pass


class CheckpointError(InputError):
    pass


class TooFewSamples(InputError):
    pass


class RouterMismatch(InputError):
    """What was fitted on one thing is applied to another; `field` names what differs."""

    def __init__(self, field: str, fitted: object, given: object) -> None:
        super().__init__(
            f"{field} differ: fitted on {_shown(fitted)}, applied to {_shown(given)}; fit again on "
            "these, or apply it to what it was fitted on"
        )
        self.field = field


class StoreError(ClipsynError):
    exit_code = 4


class MissingCell(StoreError):
    pass


class StaleCell(StoreError):
    """A cell made from other weights, images, prompts or settings than those asked for."""

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class DamagedStore(StoreError):
    pass


class UnsupportedFormat(StoreError):
    pass


class PluginError(ClipsynError):
    pass


class Interrupted(ClipsynError):
    exit_code = 130


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
