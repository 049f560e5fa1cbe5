"""What the panel `Compare` adds to the style sheet."""

CSS = """
.sw-compare .sw-deed:not(:empty) { border: 1px solid var(--jp-border-color1, #bdbdbd);
  border-left: 3px solid var(--jp-brand-color1, #0072b2); padding: 8px 12px; margin: 8px 0;
  border-radius: 2px; }
.sw-compare .sw-label { margin-right: 8px; color: var(--jp-ui-font-color1, #222); }
.sw-compare .sw-over { margin-top: 10px; }
.sw-compare .sw-over .widget-checkbox { margin-left: 16px; width: auto; }
.sw-remarks { border-left: 3px solid #e69f00; padding: 2px 12px; margin: 6px 0; line-height: 1.45;
  color: var(--jp-ui-font-color1, #222); }
.sw-remarks ul { margin: 2px 0 2px 18px; padding: 0; }
"""
