"""What there is: datasets, collections, items and assets, from the sources that know them."""
