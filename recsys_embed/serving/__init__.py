"""The model over HTTP: routes, the store of events, reloading, limits, the page."""
