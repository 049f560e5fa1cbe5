"""The CSS of the form, for the page's one style sheet. What hides a row is its layout, not CSS."""

CSS = """
.sw-form { max-width: 46em; color: var(--jp-ui-font-color1, #222); }
.sw-form .sw-field { border-left: 3px solid transparent; padding-left: 4px; }
.sw-form .sw-field .widget-label { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.sw-form .sw-field.sw-invalid { border-left-color: var(--jp-error-color1, #b3261e); }
.sw-form .sw-inside { padding-left: 10px; border-left: 1px solid var(--jp-border-color2, #ccc); }
.sw-form .sw-problem {
  color: var(--jp-error-color0, var(--jp-error-color1, #b3261e));
  line-height: 1.35; margin: 0 2px 4px 2px; white-space: normal; overflow-wrap: anywhere;
}
.sw-form .sw-about, .sw-form .sw-head, .sw-form .sw-state {
  color: var(--jp-ui-font-color1, #222);
  line-height: 1.35; margin: 0 2px 4px 2px; white-space: normal; overflow-wrap: anywhere;
}
.sw-form .sw-head { font-weight: 600; margin-top: 4px; }
.sw-form button.sw-changed, .sw-form .sw-changed button {
  font-style: italic; background: transparent; color: var(--jp-ui-font-color1, #222);
  border: 1px solid var(--jp-border-color1, #999);
}
.sw-form .sw-fold > button.widget-toggle-button { text-align: left; font-weight: 600; }
.sw-form :focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2); outline-offset: 1px; }
"""
