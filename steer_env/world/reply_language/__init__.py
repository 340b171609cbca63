"""What students say: the frames of right and wrong replies, and how any reply is read."""
