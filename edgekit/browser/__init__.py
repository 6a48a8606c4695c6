"""A headless browser on this host that runs models: its pinned packages, a local server and the page."""
