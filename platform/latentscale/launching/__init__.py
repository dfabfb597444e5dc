"""Starting the processes of a run on one node or many, and what they say to who started them."""
