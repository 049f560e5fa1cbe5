"""The form of an experiment, generated from its schema."""

from stackwise_widgets.form.form import Form
from stackwise_widgets.form.reading import Reading
from stackwise_widgets.form.style import CSS

__all__ = ["CSS", "Form", "Reading"]
