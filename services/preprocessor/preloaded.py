"""Imported by the process that workers are forked from: loads the author's file before there is a worker."""

from services.preprocessor.worker import preload

preload()
