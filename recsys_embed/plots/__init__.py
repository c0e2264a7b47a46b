"""Pictures drawn with matplotlib: of a training, a comparison of trainings, a search for settings, and words."""
