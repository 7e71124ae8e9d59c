"""From a data set to a corpus: stores, metadata, decoding, quality, content hashes; the synthetic demo data set."""
