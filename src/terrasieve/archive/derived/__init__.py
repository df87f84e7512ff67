"""Archives made of other archives: some of their samples, without an offset, seasons as views."""
