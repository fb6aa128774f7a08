"""Files brought to a folder and kept there: archives, and assets one by one."""
