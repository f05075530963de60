"""`generate`, `infill`, `repair`, and the samplers they follow: evidence in, text out."""

from ._generate import generate as generate, infill as infill
from ._motion import DEFAULT as DEFAULT, Generation as Generation
from ._repair import Edit as Edit, Repair as Repair, repair as repair
from ._samplers import AbstractSampler as AbstractSampler, Diffusion as Diffusion
from ._template import of_template as of_template, typed as typed
from ._unmasking import (
    Draft as Draft,
    Unmasking as Unmasking,
    at_random as at_random,
    least_likely as least_likely,
    left_to_right as left_to_right,
    most_certain as most_certain,
)
