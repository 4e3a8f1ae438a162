"""What the API server admits to the sandbox namespace.

``fields`` decides of every field, ``made`` turns that into rules, ``rules`` and ``config_maps`` have those that are
more than a value, ``policies`` registers all. Belongs here: what one object may be. Does not: what all may use together
(``isolation``), and who may create them (``access``).
"""
