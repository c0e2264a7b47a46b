"""A model behind HTTP: answers, events that are kept, and a page. Needs the extra `serve`."""
