"""Arrays to ROS messages and back."""
