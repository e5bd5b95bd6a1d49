"""One class for each task of a ready model: tag, classify, rate, embed, generate, recognise."""
