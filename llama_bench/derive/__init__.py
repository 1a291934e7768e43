"""Tables, laws, forecasts, figures: cheap to redo, so redone whenever the study changes."""
