"""The data plane: everything that runs inside an application process."""
