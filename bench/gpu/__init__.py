"""On a machine with a GPU: all that needs one, checked (`check`) and measured (`bench`), with what lies there."""
