"""What hosts and adapter authors test with: contracts, fakes and virtual time."""
