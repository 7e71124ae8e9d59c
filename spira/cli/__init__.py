"""The command line: one file a group of verbs; what is heavy is imported by the verb that needs it."""
