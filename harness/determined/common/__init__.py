"""The part of `determined.common` that user code imports: the errors of the client."""
