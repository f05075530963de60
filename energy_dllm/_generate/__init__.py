"""`generate`, `infill`, `repair`: evidence in, text out.

All three hand evidence to one descent: what is written on an empty page, into the holes of a page, or in
place of its typing errors, is where the system comes to rest.
"""

from ._motion import PATH as PATH, Generation as Generation
from ._repair import Edit as Edit, Repair as Repair, repair as repair
from ._template import of_template as of_template
from ._write import generate as generate, infill as infill
