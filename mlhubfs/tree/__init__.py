"""What a catalog looks like as directories: names, node kinds, documents."""
