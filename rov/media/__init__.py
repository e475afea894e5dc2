"""Pictures in and out: films and pictures from files, and what must be true of them before anything is made of them."""
