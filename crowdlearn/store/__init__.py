"""Everything that CrowdLearn keeps in Redis: the only place that knows keys and scripts (docs/redis.md)."""
