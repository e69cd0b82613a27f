"""Does routing pay in milliseconds? Dense and routed, in turns, on real images with their real routes."""
