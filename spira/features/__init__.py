"""From waveforms to batches: ward noise, windows, MFCC."""
