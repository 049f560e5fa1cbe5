"""Pictures as HTML and SVG strings, made by pure functions: no chart library, no widget.

Each returns one element that is well-formed as XML, with a table behind it. Colours come from the
page's own variables; `styled` puts the style sheet before a picture that stands alone.
"""

from stackwise_widgets.views.attention import attention_pattern_html
from stackwise_widgets.views.grid import grid_html
from stackwise_widgets.views.masks import mask_preview_html
from stackwise_widgets.views.plan import plan_html, plan_summary
from stackwise_widgets.views.rack import rack_html, rack_parts
from stackwise_widgets.views.style import CSS, styled
from stackwise_widgets.views.tables import table_html

__all__ = [
    "CSS",
    "attention_pattern_html",
    "grid_html",
    "mask_preview_html",
    "plan_html",
    "plan_summary",
    "rack_html",
    "rack_parts",
    "styled",
    "table_html",
]
