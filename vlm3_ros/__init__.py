"""A vision language model as a metric 3D sensor for ROS 2 robots."""
