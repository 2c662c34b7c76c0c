"""The cache tier: values that may be served again as long as nothing that they depend on has changed."""

from outgrow.runtime.cache.cache import Cache

__all__ = ["Cache"]
