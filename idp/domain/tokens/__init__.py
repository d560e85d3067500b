"""What relying parties hold: authorization codes and token families. Digests only; every use is a claim."""
