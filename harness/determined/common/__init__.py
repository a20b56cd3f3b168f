"""What of Determined's inner packages user code imports: the errors of its client."""
