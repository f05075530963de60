"""`generate`, `infill`, `repair`, and the samplers they follow: evidence in, text out."""

# in the order of the API page: what a reader wants first
from ._generate import generate as generate, infill as infill
from ._repair import repair as repair
from ._inpaint import inpaint as inpaint
from ._motion import Generation as Generation
from ._repair import Repair as Repair, Edit as Edit
from ._likeliest import likeliest as likeliest
from ._diffusion import descent as descent, Diffusion as Diffusion
from ._blockwise import Blocks as Blocks
from ._draft import Draft as Draft
from ._unmasking import (
    Unmasking as Unmasking,
    most_certain as most_certain,
    at_random as at_random,
    left_to_right as left_to_right,
    least_likely as least_likely,
)
from ._beam import BeamSearch as BeamSearch
from ._motion import default_sampler as default_sampler
from ._template import of_template as of_template, typed as typed
from ._inpaint import of_picture as of_picture
from ._sampler import AbstractSampler as AbstractSampler
