"""Fresh, isolated Python processes that run functions; a crash, a hang or a lack of memory becomes a typed error."""
