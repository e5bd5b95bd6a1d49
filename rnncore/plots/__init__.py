"""Pictures of models and of their training; needs the extra ``plots``."""
