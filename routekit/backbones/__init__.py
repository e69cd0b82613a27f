"""What a pretrained network looks like to routekit: a stem, residual units, a head."""
