"""From a data set to a corpus: stores, metadata tables, decoding, quality, content hashes; the synthetic demo set."""
