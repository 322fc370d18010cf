"""Operations on images: blending, blur, consistency with the sensor, normalisation, overviews."""
