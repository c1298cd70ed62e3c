"""The command line over the public interface."""
