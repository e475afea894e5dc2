"""Pictures in and out: cameras, video and picture files, the frame ring, H.264, and checks of what was read."""
