"""The RealWorld endpoints of the mix, written by hand as fast as an honest expert would: the yardstick."""
