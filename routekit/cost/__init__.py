"""What a route costs, in fvcore's unit, and the controller that meets a budget."""
